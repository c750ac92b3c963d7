"""What `attune.Client` can do, by the kind of thing it is done to: its methods, as functions of a client."""
