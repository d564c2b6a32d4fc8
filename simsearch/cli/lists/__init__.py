"""List import and bank export."""
