"""Export: packed shards, PNG from DICOM, masks and COCO boxes."""
