"""One function per experiment, each returning a whole frozen configuration."""
