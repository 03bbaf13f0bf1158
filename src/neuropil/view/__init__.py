"""Looking at volumes in a browser: Neuroglancer, served by this process, and corrections made there by clicking.

The only code that imports neuroglancer, and the one place where z, y, x become x, y, z.
"""
