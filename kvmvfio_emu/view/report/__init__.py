"""A trace as one page to look through, step by step, and as pictures for documents."""
