"""Files written beside and renamed, and folders of object stores."""
