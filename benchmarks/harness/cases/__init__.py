"""What is measured; one module per case, named in `harness.run`."""
