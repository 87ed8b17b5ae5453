"""Growth: axis maps, operators, the optimizer-state rule and the certificate."""
