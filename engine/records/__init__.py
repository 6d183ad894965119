"""What a picture's file says about how it was made, in the forms of other programs.

`record` has the facts of one picture, `fooocus` and `a1111` write and read the two foreign texts, `to_request` makes fields
of a request of what was read, `read_image` finds and places such texts in pictures. The studio's own form is the plan's
JSON, which `engine.plan` writes and reads. Nothing that was read is ever evaluated. Knows no weights and no database.
"""
