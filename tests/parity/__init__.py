"""The same script with either class: the files and attributes of both, in seeded configurations.

``configurations`` draws a script, ``training`` runs it on the real Trainer, ``schedule`` and ``oracle``
predict what each class leaves behind, ``explanations`` names the rows of the contract in which they differ.
"""
