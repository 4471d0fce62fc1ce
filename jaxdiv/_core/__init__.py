"""Tools that know nothing of divergences: special functions, polynomials, rows in blocks, jit."""
