"""What is to be delivered later: looked through, counted, taken back."""
