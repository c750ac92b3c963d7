"""What a run will cost: memory by component, work and seconds by phase, bytes on disk. Pure data, like `spec`.

Counted from the shapes of the model's layers, as a worker read them from the headers of its files, and from the spec; what is
not counted is measured, and says where.
"""
