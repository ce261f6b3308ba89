"""Layer by Layer: what the lessons' notebooks import (`data`, `plots`, `widgets`)."""
