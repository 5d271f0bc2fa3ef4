"""File formats: images, DICOM, tables, COCO, run lengths, folders."""
