"""How files of each format are made and then spoiled: one module a format, each a function from a generator to a case."""
