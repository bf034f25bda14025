"""What holdfast costs, beside its peers and beside the machine's own limits: ``make bench``."""
