"""The places where a reference may stand: one module each, with `find(obj, page)`.

It turns what it understands into uses and edits and returns the key paths that it has dealt with; `elsewhere` takes the
rest.
"""
