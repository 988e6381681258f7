"""The napari plugin: label, train, run, measure. Importing it loads neither Qt, napari nor torch."""
