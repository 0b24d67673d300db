"""Image sets by name as uint8 arrays: found on disk or downloaded, checked, resized, standardised."""
