"""`ephemeral bench proxy`: what the proxy costs, beside no proxy at all and beside what people use today."""
