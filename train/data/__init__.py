"""Text as exact numbers: corpora, tokenizers, generated languages and reproducible batches."""
