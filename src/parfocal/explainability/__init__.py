"""Class activation maps, Grad-CAM and occlusion maps, and tests of whether a network looks at the right place."""
