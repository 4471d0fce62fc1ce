"""What knows no divergence: special functions, polynomials, rows in blocks, jit."""
