"""The supervisor behind `manage.py up`: starts the product's processes, keeps them running, takes them along.

`folder` readies the data folder, `addresses` finds taken ports before anything starts, `children` says what runs,
`process` keeps one child running, `leash` ends the children of a supervisor that was killed, `supervise` puts them
together.
"""
