"""layout: many services on one host, each in a jail whose root it cannot change."""

__version__ = "0.1.0"
