"""Files of each format, made and then spoiled: a module each, with a function from a generator to a case."""
