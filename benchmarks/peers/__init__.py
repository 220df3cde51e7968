"""The notebook's work done with other libraries, a file each, for measuring beside ours."""
