"""Routers: learn where a query belongs, and know when it belongs nowhere."""
