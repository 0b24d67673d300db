"""How a program is held against given weights: a certificate, its behaviour, its distance."""
