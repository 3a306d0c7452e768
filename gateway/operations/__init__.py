"""What operators see: figures, `$SYS`, presence reports, taps."""
