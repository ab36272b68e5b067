"""Evaluate whatwhere on data sets, with protocols and metrics whose numbers compare with published ones."""
