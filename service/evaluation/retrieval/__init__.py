"""Retrieval evaluation: data sets, protocols, metrics, baselines, reports."""
