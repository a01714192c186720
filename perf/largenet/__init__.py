"""What a network of many peers costs a running daemon."""
