"""What the command `fastrnn` does with language models."""
