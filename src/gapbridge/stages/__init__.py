"""One module a stage, each thin: load, call the library, save. `stages.runner` does what is common to all."""
