"""Questions about held-out pictures: how answers are asked for, read and scored."""
