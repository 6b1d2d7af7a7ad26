"""Step one: a byte stream -> the documents that may matter; all of it is kept until it can be written."""
