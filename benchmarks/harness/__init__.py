"""The harness: starts every peer the same way, gives it the same work, and writes down what it measured."""
