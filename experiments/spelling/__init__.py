"""Which letter made a phoneme: relevance of letters, and cases in which the answer is known."""
