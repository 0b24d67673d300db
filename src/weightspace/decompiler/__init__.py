"""From a transformer's weights to a program, and a proof that it is the one."""
