"""Migrations of the store's schema: versions/ holds one file per step, each frozen once it is released.

A new step: copy the newest file of versions/, give it the next number, write what changes, and set SCHEMA_VERSION in
fleetexp/store/tables.py. Views are no step's business: they are made anew from
fleetexp/store/views/ after the last.
"""
