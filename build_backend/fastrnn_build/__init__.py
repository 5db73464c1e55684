"""How fastrnn is built: its switches, what it finds, what it decides, and the build itself."""
