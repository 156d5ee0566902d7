"""What customers get of a run's output file: QR codes as pictures, and sheets to print."""
