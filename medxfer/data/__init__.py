"""From files to batches: cases, readers, preprocessing, cache, splits, augmentation."""
