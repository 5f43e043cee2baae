"""Mining of missing labels (LENS Sec. V): `strategies.STRATEGIES` lists the strategies, and each is one file.

A strategy's file has four functions:

    choose(patients, lesions, rules) -> numbers, table   its numbers, chosen on validation patients
    mine(patients, numbers, rules) -> label rows         what it finds with these numbers
    audit(mined, patients, truth, theta) -> line         how right that is, by the complete truth
    count(known, mined) -> line                          what it adds to the counts of LENS Table IV

`patients` (see `patients.Patients`) is what mining knows of the patients of one split, `rules` the profile's section
`mining`, and `numbers` a dictionary of what `choose` chose. Boxes are in grid pixels and grid slices everywhere in
this room, and label rows are tables with the columns of `boxes.COLUMNS`.
"""
