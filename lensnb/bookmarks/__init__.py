"""From the measurements that radiologists leave in a hospital's archive to a dataset in DeepLesion's format.

DeepLesion Sec. 2.1 and 2.2.1. The way of a bookmark, one file a step:

images.py               what a folder of DICOM files holds
presentation_states.py  marks that were drawn over images (GSPS)
structured_reports.py   marks of measurement reports (SR, TID 1500)
vertices_csv.py         four vertices in patient millimetres, a row each
recist.py               which marks are RECIST pairs, and what the others are
series.py               a CT series as one volume: where its slices lie, which way they are turned in the dataset
placing.py              from the marks' coordinates to a slice and its pixels; CT only, axial only
merge.py                one lesion that was marked twice
noise.py                the paper's five rules for marks that are probably wrong
names.py                numbers in place of identifiers, and the split by patients
export.py               PNGs and DL_info.csv
review.py               pictures of what was flagged
report.py               what became of every bookmark
mine.py                 all of it in order, and the command
judging.py              the result against the truth of a simulated archive (lensnb/phantom/pacs.py)

Coordinates. What a file says in pixels counts from the corner of the first pixel, column first, so that the pixel's
centre is .5, .5 (DICOM PS3.3, C.10.5 and C.18.6). Everywhere here the first pixel's centre is 0, so .5 is taken off on
reading. Millimetres are those of the patient, LPS. The dataset's pictures are turned so that x grows to the patient's
left and y to the back. Slices are counted from 0 at the head, in the dataset's files and tables from 1.
"""
