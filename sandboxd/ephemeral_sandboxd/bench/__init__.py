"""`ephemeral bench sandbox`: what sandboxes cost on this machine, and what the same work costs by what people use today.

`catalogue` says what there is to measure, `run` measures it in order; each of the other modules measures one kind of thing.
"""
