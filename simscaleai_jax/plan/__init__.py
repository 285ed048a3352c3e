"""What a program needs on machines that are not there: compiled for them, and read from what the compiler says."""
