"""How a woven stream is sealed: its Secrets encrypted by SOPS, everything else as it is.

documents: the stream, Secret by Secret; manifest: what a Secret is and how it is handed over; encryption: with which
keys, and what is checked afterwards; reuse: why ciphertext stays the same from run to run.
"""
