"""A disk that fails at chosen calls: the library that is preloaded, and the rows that a process under it takes."""
