"""The small room that user code may import inside runs; it imports nothing of ours."""
