"""The service of a model: an OpenAI-compatible API, a page, metrics, and a model that follows its registry alias."""
